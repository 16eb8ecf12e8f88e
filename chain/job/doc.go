// Package job is what a job is before anyone runs it: its id, its signed revisions, and what a
// specification may say. Client, scheduler and executor use this one package, so that what one
// accepts the others accept.
//
// It promises that a specification which passes Check names every field that is not served yet,
// instead of ignoring it, and that an id belongs to one first revision and one owner. It does no
// I/O, knows no clock, and says nothing of prices or placement.
package job
