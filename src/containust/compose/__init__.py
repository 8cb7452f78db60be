"""The ``.ctst`` language: lexer, parser, resolver, checks, graph, formatter, Compose converter."""
