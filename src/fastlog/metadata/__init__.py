"""What the cluster knows: topics, settings, its id, handed-out blocks of producer ids; behind one small store interface."""
