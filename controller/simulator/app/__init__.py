"""`lb-drain demo` and `lb-drain simulate`."""
