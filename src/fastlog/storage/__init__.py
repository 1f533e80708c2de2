"""The data directories as a whole: who holds them, what lies where, where a log begins, leader epochs. The logs are the data plane's."""
