"""Prior prompts, plan, store and build; the audit."""
