"""The command line: parse, call a public function, print. One file a command."""
