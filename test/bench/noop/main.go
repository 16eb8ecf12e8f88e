// Command noop does nothing: what is measured with it is the way there and back.
package main

func main() {}
