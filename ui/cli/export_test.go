package cli

// PageRows sets how many rows commands ask for at a time, and returns what sets
// it back.
func PageRows(n string) (back func()) {
	was := pageRows
	pageRows = n
	return func() { pageRows = was }
}
