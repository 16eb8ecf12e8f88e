// Package fake is a complete executor.Driver in memory.
//
// A Host keeps what a real machine would keep; each Open of it is a new life of an executor, so
// re-adoption can be played through. Programs are Go functions. A hook can make any method fail, or
// act and then fail. Time is the time package's, so it runs under testing/synctest. It costs a
// goroutine per running program and nothing else: hundreds of executors fit into one test.
package fake
