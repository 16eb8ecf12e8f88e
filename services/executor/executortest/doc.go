// Package executortest holds the contract of executor.Driver as a suite of tests that every
// driver runs, and the image that the suite runs in.
package executortest
