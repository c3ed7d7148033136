"""The page's parts: what comes in and goes out (`values`), the inputs that all tabs share, and one file for each tab."""
