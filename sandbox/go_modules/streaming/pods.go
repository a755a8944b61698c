package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
)

// A label of a Kubernetes name: it becomes part of a path, so nothing else will do.
var validName = regexp.MustCompile(`^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$`)

// pods is the directory with one of NAMESPACE_NAME for each pod that the sandbox runs.
type pods struct{ directory string }

// pod is a directory with state.json, and one for each container with its log.
type pod struct{ directory, name string }

// find returns os.ErrNotExist for a pod that does not run here.
func (p pods) find(namespace, name string) (pod, error) {
	full := namespace + "/" + name
	if !validName.MatchString(namespace) || !validName.MatchString(name) {
		return pod{}, fmt.Errorf("pod %q: no such name: %w", full, os.ErrNotExist)
	}
	found := pod{filepath.Join(p.directory, namespace+"_"+name), full}
	if _, err := os.Stat(found.directory); err != nil {
		return pod{}, fmt.Errorf("pod %s does not run on this node: %w", full, os.ErrNotExist)
	}
	return found, nil
}

// pids are the processes of the containers that run now, by container. No file yet: none runs yet.
func (p pod) pids() (map[string]int, error) {
	text, err := os.ReadFile(filepath.Join(p.directory, "state.json"))
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var state struct {
		Pids map[string]int `json:"pids"`
	}
	if err := json.Unmarshal(text, &state); err != nil {
		return nil, fmt.Errorf("pod %s: state.json: %w", p.name, err)
	}
	return state.Pids, nil
}

// pid of a container; os.ErrNotExist if it does not run.
func (p pod) pid(container string) (int, error) {
	pids, err := p.pids()
	if err != nil {
		return 0, err
	}
	pid, runs := pids[container]
	if !runs {
		return 0, fmt.Errorf("pod %s: container %q does not run: %w", p.name, container, os.ErrNotExist)
	}
	return pid, nil
}

// log is the file with all that a container has written since the pod began.
func (p pod) log(container string) (*os.File, error) {
	if !validName.MatchString(container) {
		return nil, fmt.Errorf("container %q: no such name: %w", container, os.ErrNotExist)
	}
	return os.Open(filepath.Join(p.directory, container, "log"))
}
