// Package archtest holds the house to its own rules: who may import whom, what each binary may
// link, and how code may look. It reads the tree as text and the import graph from the go command;
// it runs nothing of the project. The rules stand in ARCHITECTURE and STYLE; a rule that hurts is
// changed there and here together, never bypassed.
package archtest
