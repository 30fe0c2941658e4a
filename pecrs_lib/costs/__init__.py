"""What PECRS costs, before it is run and as it was measured (notebook 15).

`shapes` are language models and machines, `estimate` the arithmetic, `measured` the same for what
the benchmarks wrote, `counting` what can be counted live.
"""
