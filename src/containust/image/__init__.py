"""Image sources, the content-addressed store, safe extraction, mounting, distroless roots."""
