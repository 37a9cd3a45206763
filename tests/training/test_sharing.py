"""Tests of caecnn_jax.training.sharing; runs that share several devices: test_several_runs."""

import dataclasses

import pytest

from caecnn_jax.training import devices, sharing


def test_images_are_put_on_a_mesh_once_for_all_runs(tiny_data, monkeypatch):
    put = []
    monkeypatch.setattr(devices, "put_images", lambda mesh, *_: put.append(mesh) or len(put))
    with sharing.share_devices(0) as shared:
        mesh, others = shared.lanes.meshes[0], dataclasses.replace(tiny_data)
        assert [shared.images_on(data, mesh) for data in (tiny_data, others, tiny_data)] == [
            1,
            2,
            1,
        ]
    assert put == [mesh, mesh]


def test_a_mesh_is_free_again_after_a_run_that_fails():
    with sharing.share_devices(0) as shared:
        for _ in range(2):
            with pytest.raises(ValueError, match="of the run"), shared.free_mesh() as mesh:
                assert mesh in shared.lanes.meshes and shared.free.empty()
                raise ValueError("of the run")
        assert shared.free.get_nowait() == mesh
