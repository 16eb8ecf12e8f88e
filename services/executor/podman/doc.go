// Package podman runs containers with a podman instance of our own.
//
// An Instance is a directory with its own storage root, run state, configuration and API socket.
// It shares nothing with the podman of the host's users: no lock file, no network, no storage, no
// ids. The API service is a child process, started on demand; it holds no state, and containers
// live on without it. A Driver is one executor's view of an instance; several drivers may share
// one.
//
// Podman does what takes long: it unpacks images and prepares containers. What has to be quick or
// must work without the service is done here: exits are seen on the instance's own exits directory,
// logs are read from conmon's files, counters, freezing and killing go through control groups.
//
// What a kill -9 must not lose stands in a directory per attempt, each file written whole.
package podman
