"""What every room stands on: device reads, Ignite's engine, updates, argument checks, rates, figures."""
