package cli

// PageOfWatch sets how many downloads "fetch" asks for at a time, and returns
// what sets it back.
func PageOfWatch(n string) (back func()) {
	was := watchPage
	watchPage = n
	return func() { watchPage = was }
}
