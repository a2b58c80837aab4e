"""Ways in and out: other trainers' configs become project files, prior sets become their reg folders.

One file per foreign system; `catalogue.py` lists them by hand. sd-scripts' options are the tongue that kohya_ss and
Derrian's scripts speak too, so what an option means stands once, in `options.py`.
"""
