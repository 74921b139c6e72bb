package deploy

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/yaml"
	strict "sigs.k8s.io/yaml"
)

// manifests is what one folder puts into a cluster.
type manifests struct {
	deployment appsv1.Deployment
	config     corev1.ConfigMap
	budget     policyv1.PodDisruptionBudget
	services   []corev1.Service
}

func TestKubernetes(t *testing.T) {
	t.Parallel()
	for folder, daemon := range map[string]string{"primary": "primaryd", "site": "secondaryd"} {
		t.Run(folder, func(t *testing.T) {
			t.Parallel()
			m := decodeFolder(t, filepath.Join("kubernetes", folder))
			checkPod(t, m.deployment.Spec.Template.Spec)
			if m.deployment.Name != daemon || m.deployment.Spec.Replicas == nil || *m.deployment.Spec.Replicas != 2 {
				t.Errorf("%s has not two replicas", m.deployment.Name)
			}
			pod := labels.Set(m.deployment.Spec.Template.Labels)
			selectors := []*metav1.LabelSelector{m.deployment.Spec.Selector, m.budget.Spec.Selector}
			for _, service := range m.services {
				selectors = append(selectors, &metav1.LabelSelector{MatchLabels: service.Spec.Selector})
				checkPorts(t, service, m.deployment)
			}
			for _, selector := range selectors {
				s, err := metav1.LabelSelectorAsSelector(selector)
				if err != nil || s.Empty() || !s.Matches(pod) {
					t.Errorf("%v does not select the pods %v: %v", selector, pod, err)
				}
			}
			container := m.deployment.Spec.Template.Spec.Containers[0]
			path := container.Args[slices.Index(container.Args, "--config")+1]
			if _, found := m.config.Data[filepath.Base(path)]; !found || m.config.Name != daemon {
				t.Errorf("the config map %s has no %s", m.config.Name, filepath.Base(path))
			}
		})
	}
}

// decodeFolder reads every document into its Kubernetes type; a field that the type does not have fails the test.
func decodeFolder(t *testing.T, folder string) *manifests {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no manifests in %s: %v", folder, err)
	}
	m := &manifests{}
	for _, file := range files {
		documents := yaml.NewYAMLReader(bufioReader(read(t, file)))
		for {
			document, err := documents.Read()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			m.decode(t, file, document)
		}
	}
	return m
}

func (m *manifests) decode(t *testing.T, file string, document []byte) {
	t.Helper()
	var kind metav1.TypeMeta
	if err := strict.Unmarshal(document, &kind); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	var service corev1.Service
	into, known := map[string]any{
		"apps/v1 Deployment": &m.deployment, "v1 ConfigMap": &m.config, "v1 Service": &service,
		"policy/v1 PodDisruptionBudget": &m.budget,
	}[kind.APIVersion+" "+kind.Kind]
	if !known {
		t.Fatalf("%s: teach this test %s %s", file, kind.APIVersion, kind.Kind)
	}
	if err := strict.UnmarshalStrict(document, into); err != nil {
		t.Errorf("%s: %v", file, err)
	}
	if service.Name != "" {
		m.services = append(m.services, service)
	}
}

// checkPod looks for what the restricted Pod Security Standard asks for, and for a stop that takes nothing from a daemon's
// hands.
func checkPod(t *testing.T, pod corev1.PodSpec) {
	t.Helper()
	container := pod.Containers[0]
	of, own := pod.SecurityContext, container.SecurityContext
	if of == nil || of.RunAsNonRoot == nil || !*of.RunAsNonRoot || of.RunAsUser == nil || *of.RunAsUser == 0 ||
		of.SeccompProfile == nil || of.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("the pod's security context is %+v", of)
	}
	if own == nil || own.AllowPrivilegeEscalation == nil || *own.AllowPrivilegeEscalation ||
		own.ReadOnlyRootFilesystem == nil || !*own.ReadOnlyRootFilesystem || own.Capabilities == nil ||
		!slices.Contains(own.Capabilities.Drop, "ALL") {
		t.Errorf("the container's security context is %+v", own)
	}
	if grace := pod.TerminationGracePeriodSeconds; grace == nil || time.Duration(*grace)*time.Second < stopsWithin {
		t.Errorf("the pod is killed after %v seconds", grace)
	}
	volumes := map[string]bool{}
	for _, volume := range pod.Volumes {
		volumes[volume.Name] = true
	}
	for _, mount := range container.VolumeMounts {
		if !volumes[mount.Name] {
			t.Errorf("no volume %s is there to be mounted", mount.Name)
		}
		delete(volumes, mount.Name)
	}
	if len(volumes) > 0 {
		t.Errorf("nobody mounts %v", slices.Sorted(maps.Keys(volumes)))
	}
	checkProbes(t, container)
}

// checkProbes: a daemon is restarted when it does not serve, never because its database or registry does not answer.
func checkProbes(t *testing.T, container corev1.Container) {
	t.Helper()
	for probe, path := range map[*corev1.Probe]string{
		container.StartupProbe: "/healthz", container.LivenessProbe: "/healthz", container.ReadinessProbe: "/readyz",
	} {
		if probe == nil || probe.HTTPGet == nil || probe.HTTPGet.Path != path || probe.HTTPGet.Port.StrVal != "http" {
			t.Errorf("a probe is %+v, want one of %s", probe, path)
		}
	}
}

func checkPorts(t *testing.T, service corev1.Service, deployment appsv1.Deployment) {
	t.Helper()
	names := map[string]bool{}
	for _, port := range deployment.Spec.Template.Spec.Containers[0].Ports {
		names[port.Name] = true
	}
	for _, port := range service.Spec.Ports {
		if !names[port.TargetPort.StrVal] {
			t.Errorf("service %s leads to port %q, which no container has", service.Name, port.TargetPort.StrVal)
		}
	}
}

// TestStrictReading: a reader that takes anything proves nothing.
func TestStrictReading(t *testing.T) {
	t.Parallel()
	wrong := strings.Replace(read(t, "kubernetes/primary/deployment.yaml"), "readinessProbe:", "readyProbe:", 1)
	if err := strict.UnmarshalStrict([]byte(wrong), &appsv1.Deployment{}); err == nil {
		t.Error("a field that Kubernetes does not know was taken")
	}
	if bytes.Contains([]byte(wrong), []byte("readinessProbe")) {
		t.Error("the manifest was not changed")
	}
}
