"""Python clients side by side against one broker: `bench/client`."""
