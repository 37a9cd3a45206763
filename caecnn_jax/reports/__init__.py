"""Pages for people, from what runs left; no figure is computed here."""
