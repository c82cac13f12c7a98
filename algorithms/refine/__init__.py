"""Regularised-likelihood refinement: EM and VDAM over one two-pass E-step in matrix form.

Source: refinement.md; Scheres 2012 (doi:10.1016/j.jmb.2011.11.010), Kimanius 2021
(doi:10.1042/BCJ20210708).
"""
