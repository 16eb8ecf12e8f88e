// Package accounts plays what happens to accounts on later days: keys that are lost and replaced,
// machines that act within limits, jobs that spend a budget. People use the command line, the
// ledger is the real one with its files, and days pass in simulated time.
package accounts
