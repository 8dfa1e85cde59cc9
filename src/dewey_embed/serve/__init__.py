"""The server: endpoints of known shapes, a page for people, and tools for agents."""
