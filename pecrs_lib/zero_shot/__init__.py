"""Language models without training (section 4.4, Table 7).

`asking` makes the prompts and rates what comes back, from `answers` that were recorded, or of a
model in this process (`language_models`) or behind a server (`servers`); `titles` finds the films
in a reply, `recommended` says how surely; `likelihood` ranks a catalogue without asking at all.
"""
