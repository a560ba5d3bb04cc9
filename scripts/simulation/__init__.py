"""The whole service, simulated from one seed: machine, network, clients, faults and a judge."""
