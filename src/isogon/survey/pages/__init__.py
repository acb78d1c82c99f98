"""Records become a page: reports of surveys and of sweeps."""
