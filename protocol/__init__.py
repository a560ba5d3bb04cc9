"""The wire: frames, messages and connection state, without any input or output."""
