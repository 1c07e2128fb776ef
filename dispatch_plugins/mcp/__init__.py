"""The MCP surface: every op as tools, over a byte bridge on stdio and a session in the daemon."""
