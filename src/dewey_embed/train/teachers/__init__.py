"""Who is asked for targets: a protocol, three real teachers, and what is no answer."""
