// Package stage brings up whole networks for end-to-end tests and benchmarks, in two ways with one
// surface: all services in this process, or each in a process of its own, as operators run them.
// It ends what it starts, also containers of jobs that were left behind.
//
// It needs root, podman, and a disk that overlay can stand on under the temporary folder.
package stage
