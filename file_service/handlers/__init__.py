"""HTTP in and out: one module per resource; parse, call one service method, answer."""
