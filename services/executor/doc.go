// Package executor is the domain of the executor: the agent that runs other people's containers
// on one host and meters them.
//
// It declares the Driver seam between the agent and whatever engine runs the containers, and the
// values that pass through it. It knows no engine, no network and no file system; those live in
// the packages below it, one per technology.
package executor
