// One map with the layers of a scene. The page shows two of them to swipe between.

const OUTLINE = "worst-window";
const FALLBACK_COLOR = "#d55e00";

export function themeColor(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

export class MapPane {
  constructor(container, onClick, onError) {
    this.layers = [];
    this.map = new maplibregl.Map({
      container,
      style: {
        version: 8,
        sources: {},
        layers: [{ id: "ground", type: "background", paint: { "background-color": themeColor("--ground") } }],
      },
      attributionControl: false,
      dragRotate: false,
      pitchWithRotate: false,
      fadeDuration: 0,
      maxZoom: 24,
      center: [0, 0],
      zoom: 1,
    });
    this.map.touchZoomRotate.disableRotation();
    this.map.keyboard.disableRotation();
    this.map.on("click", (event) => onClick(this, event));
    this.map.on("error", (event) => onError(event.error));
    this.loaded = new Promise((resolve) => this.map.once("load", resolve));
  }

  recolor() {
    this.map.setPaintProperty("ground", "background-color", themeColor("--ground"));
  }

  // `url` makes the address of a layer's tiles or shapes from its number.
  async show(scene, url) {
    await this.loaded;
    this.showOutline(null);
    for (const layer of this.layers) {
      for (const id of layer.ids) this.map.removeLayer(id);
      this.map.removeSource(layer.source);
    }
    this.layers = scene.layers.map((layer, number) => {
      const source = `layer-${number}`;
      return layer.type === "raster"
        ? this.#addRaster(source, layer, url(number))
        : this.#addFeatures(source, layer, url(number));
    });
  }

  setLayer(number, visible, opacity) {
    const layer = this.layers[number];
    for (const id of layer.ids) {
      this.map.setLayoutProperty(id, "visibility", visible ? "visible" : "none");
      for (const [property, share] of layer.opacities[id]) {
        this.map.setPaintProperty(id, property, opacity * share);
      }
    }
  }

  showOutline(coordinates) {
    if (this.map.getLayer(OUTLINE)) {
      this.map.removeLayer(OUTLINE);
      this.map.removeSource(OUTLINE);
    }
    if (!coordinates) return;
    const data = { type: "Feature", properties: {}, geometry: { type: "LineString", coordinates } };
    this.map.addSource(OUTLINE, { type: "geojson", data });
    this.map.addLayer({
      id: OUTLINE, type: "line", source: OUTLINE,
      paint: { "line-color": "#ff2d55", "line-width": 2.5, "line-dasharray": [2, 1.5] },
    });
  }

  // The shapes at a point that are shown, the topmost first.
  shapesAt(point) {
    const ids = this.layers.flatMap((layer) => (layer.features ? layer.ids : []))
      .filter((id) => this.map.getLayoutProperty(id, "visibility") !== "none");
    const box = [[point.x - 4, point.y - 4], [point.x + 4, point.y + 4]];
    const seen = new Set();
    return ids.length === 0 ? [] : this.map.queryRenderedFeatures(box, { layers: ids }).filter((feature) => {
      const key = `${feature.source}/${feature.id}`;
      return !seen.has(key) && seen.add(key);
    });
  }

  #addRaster(source, layer, tiles) {
    const [west, south, east, north] = layer.bounds;
    const turned = west < -180 || east > 180; // across the date line
    this.map.addSource(source, {
      type: "raster", tiles: [tiles], tileSize: 256, minzoom: layer.minzoom, maxzoom: layer.maxzoom,
      ...(turned ? {} : { bounds: [west, south, east, north] }),
    });
    this.map.addLayer({
      id: source, type: "raster", source,
      paint: { "raster-resampling": "nearest", "raster-fade-duration": 0 },
    });
    return { source, ids: [source], features: false, opacities: { [source]: [["raster-opacity", 1]] } };
  }

  #addFeatures(source, layer, data) {
    const pairs = layer.legend.classes.flatMap(({ name, color }) => [name, color]);
    const color = pairs.length ? ["match", ["get", "class"], ...pairs, FALLBACK_COLOR] : FALLBACK_COLOR;
    this.map.addSource(source, { type: "geojson", data, tolerance: 0.2 });
    const add = (suffix, type, paint, opacities) => {
      const id = `${source}-${suffix}`;
      this.map.addLayer({ id, type, source, paint });
      return [id, opacities];
    };
    const made = layer.geometry === "point"
      ? [add("dot", "circle", {
          "circle-color": color, "circle-radius": ["interpolate", ["linear"], ["zoom"], 12, 2.5, 18, 6],
          "circle-stroke-color": "#fff", "circle-stroke-width": 1,
        }, [["circle-opacity", 1], ["circle-stroke-opacity", 1]])]
      : [add("fill", "fill", { "fill-color": color }, [["fill-opacity", 0.18]]),
         add("line", "line", {
           "line-color": color, "line-width": 2,
           ...(layer.role === "labels" ? { "line-dasharray": [3, 1.5] } : {}),
         }, [["line-opacity", 1]])];
    return { source, ids: made.map(([id]) => id), features: true, opacities: Object.fromEntries(made) };
  }
}

// The second map follows the first, and the first the second.
export function follow(one, other) {
  let moving = false;
  const link = (from, to) => from.map.on("move", () => {
    if (moving) return;
    moving = true;
    to.map.jumpTo({ center: from.map.getCenter(), zoom: from.map.getZoom() });
    moving = false;
  });
  link(one, other);
  link(other, one);
}
