"""How work runs on Dask: a bounded window, merges on the workers, worker set-up."""
