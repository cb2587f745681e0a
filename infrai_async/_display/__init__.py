"""Display: HTML tables for notebooks, and progress reports."""
