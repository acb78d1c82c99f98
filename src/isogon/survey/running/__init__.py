"""Jobs become records: sessions, sweeps, claims, and the executors that they run on."""
