"""Models answered over HTTP: OpenAI's protocol, predictions, and a page to talk to."""
