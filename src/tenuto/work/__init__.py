"""The main job, as functions that every face (command line, page, sweep) calls.

prepare -> audit -> build_prior -> train_all (plain, held) -> compare_arms -> report
"""
