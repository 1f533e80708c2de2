"""What tests share: a broker as a process, raw requests over a socket, records to send and compare."""
