"""Asking people which of two replies is better (Table 4 of the paper), blind and with intervals.

`replies` are what systems said in the same contexts, `judgements` one rater's way through them,
`agreement` the statistics and `human_evaluation` the table.
"""
