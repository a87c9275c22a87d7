"""From records to the Pareto front: which trials compare, which are points, what is shown of them."""
