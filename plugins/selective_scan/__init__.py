"""Mamba's selective scan: the operator `storm::SelectiveScan`."""
