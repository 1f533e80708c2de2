"""The broker: the control plane's wiring, its request handlers, and what it asks of the data plane."""
