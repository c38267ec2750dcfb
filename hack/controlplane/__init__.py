"""A control plane without kubelets, as ordinary processes on loopback.

etcd, kube-apiserver, kube-controller-manager, kube-scheduler and KWOK, which makes nodes and pods
ready without running anything. Pods get addresses in 127.64.0.0/10, so one process of ours answers
for every router. No root, no namespaces; everything dies with the process that started it.
"""
