"""The paper's tables, figures and claims, made again from result files.

Stands behind `assessment`. `runs` says what there is to train and `running` carries it out;
`evidence`, `tables` and `variant_tables` read the files that runs leave; `findings`, the judges and
`claims` hold the paper's claims against them; `better` is a model beyond the paper's; `report`
writes all of it down. `beyond`, `confidence` and `ablations` look where the paper does not.
"""
