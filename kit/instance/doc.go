// Package instance is what every running instance of a service has: its keys and certificate, the
// chain it goes by, the way to its peers and to the broker, and its telemetry. A service's wire
// package builds on an Instance and does not care whether its process holds one service or all.
//
// Open makes the Instance of a process of its own from a configuration file; Main is such a
// process's whole main function. Who runs several services in one process makes the Instances
// itself.
package instance
