"use strict";

// What the page computes: the forward pass of its networks, and how images, kernels and maps on the group rotate.
// It knows nothing of the page, so that the page, its worker and node can all run it.
//
// Images are planes of side x side numbers, one after the other. A map on the group has one plane for each element and
// field, elements first. `breaks` names the mistakes that are switched on: direction, inverse, shift.
const Engine = (() => {
  const NO_BREAKS = Object.freeze({ direction: false, inverse: false, shift: false });

  function decodeBytes(base64) {
    return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  }

  // Pixels -------------------------------------------------------------------------------------------------------

  /** ((x - b(x)) / (p(x) - b(x)) - mean) / std with percentiles of the image, as gconv_ga.images.Normalization does. */
  function normalize(raw, channels, { mean, std, percentile, black = null }) {
    const sorted = percentile === null ? raw : Float32Array.from(raw).sort(); // no black without a percentile
    const at = (rank) => sorted[Math.max(1, Math.ceil((rank / 100) * sorted.length)) - 1];
    const dark = black === null ? 0 : at(black);
    let level = percentile === null ? 1 : at(percentile) - dark;
    if (!(level > 0)) level = 1;
    const area = raw.length / channels;
    return Float32Array.from(raw, (value, at) => {
      const channel = Math.floor(at / area);
      return std[channel] === 0 ? 0 : ((value - dark) / level - mean[channel]) / std[channel];
    });
  }

  /** Rotate planes counter-clockwise: multiples of 90 degrees permute pixels, other angles interpolate bilinearly. */
  function rotate(planes, side, degrees, fill = []) {
    const turns = (((degrees / 90) % 4) + 4) % 4;
    const area = side * side;
    const last = side - 1;
    const out = new Float32Array(planes.length);
    const exact = Number.isInteger(turns);
    const angle = (degrees * Math.PI) / 180;
    const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
    for (let i = 0; i < side; i++) {
      for (let j = 0; j < side; j++) {
        const to = i * side + j;
        if (exact) {
          const row = [i, j, last - i, last - j][turns];
          const column = [j, last - i, last - j, i][turns];
          for (let plane = 0; plane < planes.length; plane += area) {
            out[plane + to] = planes[plane + row * side + column];
          }
          continue;
        }
        const [x, y] = [j - last / 2, last / 2 - i];
        const [row, column] = [last / 2 + sin * x - cos * y, last / 2 + cos * x + sin * y];
        const [top, left] = [Math.floor(row), Math.floor(column)];
        for (let channel = 0; channel * area < planes.length; channel++) {
          let value = 0;
          for (let corner = 0; corner < 4; corner++) {
            const [r, c] = [top + (corner >> 1), left + (corner & 1)];
            const weight = (1 - Math.abs(row - r)) * (1 - Math.abs(column - c));
            const inside = r >= 0 && c >= 0 && r < side && c < side;
            value += weight * (inside ? planes[channel * area + r * side + c] : (fill[channel] ?? 0));
          }
          out[channel * area + to] = value;
        }
      }
    }
    return out;
  }

  function reflect(planes, side) {
    return planes.map((_, at) => planes[at - (at % side) + side - 1 - (at % side)]);
  }

  /** L_g of an image: reflect the last axis if the element does, then rotate. */
  function act(element, planes, side) {
    return rotate(element.reflects ? reflect(planes, side) : planes, side, element.angle);
  }

  /** L_g^-1 of an image. */
  function actInverse(element, planes, side) {
    const rotated = rotate(planes, side, -element.angle);
    return element.reflects ? reflect(rotated, side) : rotated;
  }

  function radius(at, side) {
    const [row, column] = [Math.floor(at / side) - (side - 1) / 2, (at % side) - (side - 1) / 2];
    return Math.sqrt(row * row + column * column);
  }

  /** The median of each plane: what an image is filled with where there is none. */
  function medians(planes, side) {
    const area = side * side;
    return Array.from({ length: planes.length / area }, (_, channel) => {
      return planes.slice(channel * area, (channel + 1) * area).sort()[area >> 1];
    });
  }

  /** Keep a disc, with a soft edge of two pixels, so that no corner enters or leaves when the image rotates. */
  function cutDisc(planes, side, fill) {
    return planes.map((value, at) => {
      const weight = Math.min(1, Math.max(0, (side / 2 - 1 - radius(at % (side * side), side)) / 2));
      const outside = fill[Math.floor(at / (side * side))];
      return outside + weight * (value - outside);
    });
  }

  /** Whether labels are compared at a pixel: inside the disc, off its edge. */
  function isCompared(at, side) {
    return radius(at, side) < side / 2 - 4;
  }

  // Networks -----------------------------------------------------------------------------------------------------

  /** Give each layer of a network its part of the weights. */
  function readNetwork(description, weights) {
    let at = 0;
    const take = (count) => weights.subarray(at, (at += count));
    const { functions, channels, classes, width, depth } = description;
    const convolution = (inputs, outputs, lifts) => {
      const taps = lifts ? [0] : description.taps;
      const weight = take(outputs * inputs * taps.length * functions);
      return { inputs, outputs, lifts, taps, weight, bias: take(outputs) };
    };
    const block = (inputs, outputs, lifts) => [
      convolution(inputs, outputs, lifts),
      convolution(outputs, outputs, false),
    ];
    const widths = Array.from({ length: depth }, (_, level) => width * 2 ** level);
    const encoder = widths.map((fields, level) => block(level ? widths[level - 1] : channels, fields, level === 0));
    const decoder = [];
    for (let level = depth - 2; level >= 0; level--) {
      decoder.push(block(widths[level + 1] + widths[level], widths[level], false));
    }
    const { neck } = description; // the number of fields before the head, of kernels of one pixel; 0 if there are none
    const widen = neck && { inputs: width, outputs: neck, taps: description.taps };
    if (neck) Object.assign(widen, { weight: take(neck * width * description.taps.length), bias: take(neck) });
    const head = { weight: take(classes * (neck || width)), bias: take(classes) };
    if (at !== weights.length) throw new Error(`${weights.length} weights where the network has ${at}`);
    return { ...description, encoder, decoder, widen, head, kernels: new Map() };
  }

  /** The kernels L_g k of a layer, [g][field][tap][input field][pixel]. */
  function rotateKernels(network, layer, breaks) {
    const { elements, basis, functions, inverse } = network;
    const size = network.kernelSize ** 2;
    const { inputs, outputs, taps, weight } = layer;
    const stack = new Float32Array(elements.length * outputs * taps.length * inputs * size);
    let to = 0;
    for (let g = 0; g < elements.length; g++) {
      // Were the lifting wrong too, the orientations would only have other names.
      const rotated = basis[breaks.direction && !layer.lifts ? inverse[g] : g];
      for (let o = 0; o < outputs; o++) {
        for (let t = 0; t < taps.length; t++) {
          for (let c = 0; c < inputs; c++, to += size) {
            const from = ((o * inputs + c) * taps.length + t) * functions;
            for (let f = 0; f < functions; f++) {
              for (let s = 0; s < size; s++) stack[to + s] += weight[from + f] * rotated[f][s];
            }
          }
        }
      }
    }
    return stack;
  }

  function cachedKernels(network, layer, breaks) {
    const mistake = breaks.direction;
    const known = network.kernels.get(layer);
    if (known && known.mistake === mistake) return known.stack;
    const stack = rotateKernels(network, layer, breaks);
    network.kernels.set(layer, { mistake, stack });
    return stack;
  }

  /** The element h that tap u reads for output g: (L_g k)(., h) = k(g^-1 ., g^-1 h), so g^-1 h = u. */
  function source(network, layer, g, u, breaks) {
    if (layer.lifts) return 0;
    if (breaks.shift) return u;
    return network.products[breaks.inverse ? network.inverse[g] : g][u];
  }

  function pad(planes, side, margin) {
    const wide = side + 2 * margin;
    const count = planes.length / (side * side);
    const out = new Float32Array(count * wide * wide);
    for (let plane = 0; plane < count; plane++) {
      for (let row = 0; row < side; row++) {
        const from = (plane * side + row) * side;
        out.set(planes.subarray(from, from + side), (plane * wide + row + margin) * wide + margin);
      }
    }
    return out;
  }

  /** Add the correlation of one padded plane with four 3 x 3 kernels to four planes. Unrolled: all time goes here. */
  function addFour3x3(planes, from, side, kernels, a, b, c, d, out, q0, q1, q2, q3) {
    const wide = side + 2;
    const a0 = kernels[a], a1 = kernels[a + 1], a2 = kernels[a + 2], a3 = kernels[a + 3], a4 = kernels[a + 4];
    const a5 = kernels[a + 5], a6 = kernels[a + 6], a7 = kernels[a + 7], a8 = kernels[a + 8];
    const b0 = kernels[b], b1 = kernels[b + 1], b2 = kernels[b + 2], b3 = kernels[b + 3], b4 = kernels[b + 4];
    const b5 = kernels[b + 5], b6 = kernels[b + 6], b7 = kernels[b + 7], b8 = kernels[b + 8];
    const c0 = kernels[c], c1 = kernels[c + 1], c2 = kernels[c + 2], c3 = kernels[c + 3], c4 = kernels[c + 4];
    const c5 = kernels[c + 5], c6 = kernels[c + 6], c7 = kernels[c + 7], c8 = kernels[c + 8];
    const d0 = kernels[d], d1 = kernels[d + 1], d2 = kernels[d + 2], d3 = kernels[d + 3], d4 = kernels[d + 4];
    const d5 = kernels[d + 5], d6 = kernels[d + 6], d7 = kernels[d + 7], d8 = kernels[d + 8];
    for (let row = 0; row < side; row++) {
      let r0 = from + row * wide, r1 = r0 + wide, r2 = r1 + wide;
      let x0 = planes[r0++], x1 = planes[r0++], x3 = planes[r1++], x4 = planes[r1++], x6 = planes[r2++], x7 = planes[r2++];
      const shift = row * side;
      let i0 = q0 + shift, i1 = q1 + shift, i2 = q2 + shift, i3 = q3 + shift;
      for (const end = i0 + side; i0 < end; i0++, i1++, i2++, i3++) {
        const x2 = planes[r0++], x5 = planes[r1++], x8 = planes[r2++];
        out[i0] += a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3 + a4 * x4 + a5 * x5 + a6 * x6 + a7 * x7 + a8 * x8;
        out[i1] += b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3 + b4 * x4 + b5 * x5 + b6 * x6 + b7 * x7 + b8 * x8;
        out[i2] += c0 * x0 + c1 * x1 + c2 * x2 + c3 * x3 + c4 * x4 + c5 * x5 + c6 * x6 + c7 * x7 + c8 * x8;
        out[i3] += d0 * x0 + d1 * x1 + d2 * x2 + d3 * x3 + d4 * x4 + d5 * x5 + d6 * x6 + d7 * x7 + d8 * x8;
        x0 = x1; x1 = x2; x3 = x4; x4 = x5; x6 = x7; x7 = x8;
      }
    }
  }

  /** Add the correlation of one padded plane with one k x k kernel to one plane. */
  function addOne(planes, from, side, kernels, at, size, out, to) {
    const wide = side + size - 1;
    for (let tap = 0; tap < size * size; tap++) {
      const weight = kernels[at + tap];
      const start = from + Math.floor(tap / size) * wide + (tap % size);
      for (let row = 0; row < side; row++) {
        const [read, write] = [start + row * wide, to + row * side];
        for (let column = 0; column < side; column++) out[write + column] += weight * planes[read + column];
      }
    }
  }

  /** A convolution with its bias and a ReLU, from [h][input field] planes to [g][field] planes. */
  function convolve(network, layer, planes, side, breaks) {
    const size = network.kernelSize;
    const { inputs, outputs, taps, bias } = layer;
    const stack = cachedKernels(network, layer, breaks);
    const padded = pad(planes, side, (size - 1) / 2);
    const [area, wide] = [side * side, (side + size - 1) ** 2];
    const step = taps.length * inputs * size * size;
    const planesOut = network.elements.length * outputs;
    const all = new Float32Array((planesOut + 1) * area); // what the last four have too many goes to a spare plane
    const out = all.subarray(0, planesOut * area);
    for (let g = 0; g < network.elements.length; g++) {
      const sources = taps.map((u) => source(network, layer, g, u, breaks));
      for (let o = 0; o < outputs; o++) out.fill(bias[o], (g * outputs + o) * area, (g * outputs + o + 1) * area);
      for (let o = 0; o < outputs; o += size === 3 ? 4 : 1) {
        const to = [0, 1, 2, 3].map((j) => (o + j < outputs ? g * outputs + o + j : planesOut) * area);
        for (let t = 0; t < taps.length; t++) {
          for (let c = 0; c < inputs; c++) {
            const from = (sources[t] * inputs + c) * wide;
            const at = (g * outputs + o) * step + (t * inputs + c) * size * size;
            if (size === 3) {
              const [, second, third, fourth] = to.map((_, j) => (o + j < outputs ? at + j * step : at));
              addFour3x3(padded, from, side, stack, at, second, third, fourth, all, ...to);
            } else addOne(padded, from, side, stack, at, size, out, to[0]);
          }
        }
      }
    }
    for (let at = 0; at < out.length; at++) if (out[at] < 0) out[at] = 0;
    return out;
  }

  /** A convolution with kernels of one pixel, which no rotation changes, with its bias and a ReLU. */
  function combine(network, layer, planes, side, breaks) {
    const { inputs, outputs, taps, weight, bias } = layer;
    const area = side * side;
    const out = new Float32Array(network.elements.length * outputs * area);
    for (let g = 0; g < network.elements.length; g++) {
      for (let o = 0; o < outputs; o++) {
        const sum = out.subarray((g * outputs + o) * area, (g * outputs + o + 1) * area).fill(bias[o]);
        taps.forEach((u, t) => {
          for (let c = 0; c < inputs; c++) {
            const factor = weight[(o * inputs + c) * taps.length + t];
            const from = (source(network, layer, g, u, breaks) * inputs + c) * area;
            for (let at = 0; at < area; at++) sum[at] += factor * planes[from + at];
          }
        });
        for (let at = 0; at < area; at++) if (sum[at] < 0) sum[at] = 0;
      }
    }
    return out;
  }

  /** A window of 2 x 2 pixels, combined, from every `stride`th pixel. */
  function pool2x2(planes, side, stride, combine) {
    const fewer = stride === 2 ? side / 2 : side - 1;
    const count = planes.length / (side * side);
    const out = new Float32Array(count * fewer * fewer);
    for (let plane = 0; plane < count; plane++) {
      for (let row = 0; row < fewer; row++) {
        for (let column = 0; column < fewer; column++) {
          const at = (plane * side + row * stride) * side + column * stride;
          const value = combine(planes[at], planes[at + 1], planes[at + side], planes[at + side + 1]);
          out[(plane * fewer + row) * fewer + column] = value;
        }
      }
    }
    return out;
  }

  function repeatEdge(planes, side) {
    const wide = side + 2;
    const clamp = (place) => Math.min(side - 1, Math.max(0, place - 1));
    const out = new Float32Array((planes.length / (side * side)) * wide * wide);
    return out.map((_, at) => {
      const [plane, row, column] = [Math.floor(at / (wide * wide)), Math.floor(at / wide) % wide, at % wide];
      return planes[(plane * side + clamp(row)) * side + clamp(column)];
    });
  }

  function halve(network, planes, side) {
    if (network.pooling === "max") return pool2x2(planes, side, 2, Math.max);
    const mean = (a, b, c, d) => (a + b + c + d) / 4;
    const smooth = pool2x2(repeatEdge(pool2x2(planes, side, 1, Math.max), side - 1), side + 1, 1, mean);
    return pool2x2(smooth, side, 2, mean);
  }

  /** Bilinear upsampling by two, as torch does with align_corners=False. */
  function enlarge(planes, side) {
    const wide = 2 * side;
    const out = new Float32Array(4 * planes.length);
    const near = (place) => {
      const [low, odd] = [(place - 1) >> 1, place % 2];
      return [Math.max(0, low), Math.min(side - 1, low + 1), odd ? 0.75 : 0.25];
    };
    for (let plane = 0; plane < planes.length / (side * side); plane++) {
      for (let row = 0; row < wide; row++) {
        const [above, below, up] = near(row);
        for (let column = 0; column < wide; column++) {
          const [left, right, before] = near(column);
          const [high, low] = [(plane * side + above) * side, (plane * side + below) * side];
          out[(plane * wide + row) * wide + column] =
            up * (before * planes[high + left] + (1 - before) * planes[high + right]) +
            (1 - up) * (before * planes[low + left] + (1 - before) * planes[low + right]);
        }
      }
    }
    return out;
  }

  /** Join two maps on the group along their fields. */
  function join(first, second, order) {
    const out = new Float32Array(first.length + second.length);
    const [a, b] = [first.length / order, second.length / order];
    for (let g = 0; g < order; g++) {
      out.set(first.subarray(g * a, (g + 1) * a), g * (a + b));
      out.set(second.subarray(g * b, (g + 1) * b), g * (a + b) + a);
    }
    return out;
  }

  /** The mean or the maximum over the elements of a map on the group. */
  function poolGroup(maps, order, reduction = "mean") {
    const length = maps.length / order;
    const out = maps.slice(0, length);
    for (let g = 1; g < order; g++) {
      for (let at = 0; at < length; at++) {
        const value = maps[g * length + at];
        out[at] = reduction === "max" ? Math.max(out[at], value) : out[at] + value;
      }
    }
    return reduction === "max" ? out : out.map((sum) => sum / order);
  }

  /** The logits of an image, [class] planes. */
  function forward(network, image, side, breaks = NO_BREAKS) {
    const order = network.elements.length;
    const run = (block, maps, n) => block.reduce((x, layer) => convolve(network, layer, x, n, breaks), maps);
    const levels = [];
    let [maps, n] = [image, side];
    network.encoder.forEach((block, level) => {
      if (level) [maps, n] = [halve(network, maps, n), n / 2];
      levels.push((maps = run(block, maps, n)));
    });
    levels.pop();
    for (const block of network.decoder) {
      const skip = levels.pop();
      maps = run(block, join(skip, enlarge(maps, n), order), 2 * n);
      n *= 2;
    }
    if (network.widen) maps = combine(network, network.widen, maps, side, breaks);
    const features = poolGroup(maps, order, network.reduction);
    const [area, count] = [side * side, network.neck || network.width];
    const logits = new Float32Array(network.classes * area);
    for (let k = 0; k < network.classes; k++) {
      for (let at = 0; at < area; at++) {
        let sum = network.head.bias[k];
        for (let c = 0; c < count; c++) sum += network.head.weight[k * count + c] * features[c * area + at];
        logits[k * area + at] = sum;
      }
    }
    return logits;
  }

  /** The number of multiply-adds of a forward pass. */
  function multiplyAdds(network, side) {
    const order = network.elements.length;
    const cost = (layer) => order * layer.outputs * layer.taps.length * layer.inputs * network.kernelSize ** 2;
    const blocks = [...network.encoder, ...network.decoder];
    const levels = [...network.encoder.keys(), ...[...network.decoder.keys()].map((at) => network.depth - 2 - at)];
    const perBlock = blocks.map((block, at) => (side / 2 ** levels[at]) ** 2 * (cost(block[0]) + cost(block[1])));
    const { widen, neck, width, classes, taps } = network;
    const last = classes * (neck || width) + (widen ? order * neck * taps.length * width : 0);
    return perBlock.reduce((sum, each) => sum + each, side * side * last);
  }

  function argmax(logits, area) {
    return Uint8Array.from({ length: area }, (_, at) => {
      let best = 0;
      for (let k = 1; k * area < logits.length; k++) if (logits[k * area + at] > logits[best * area + at]) best = k;
      return best;
    });
  }

  /** The labels of the rotated image, rotated back. Between multiples of 90 degrees the logits are interpolated. */
  function predict(network, disc, side, degrees, fill, breaks) {
    const logits = forward(network, rotate(disc, side, degrees, fill), side, breaks);
    return argmax(rotate(logits, side, -degrees), side * side);
  }

  /** The disc of an image that a network takes, and what lies outside of it. */
  function prepare(raw, network, side) {
    const planes = normalize(raw, network.channels, network.normalization);
    const fill = medians(planes, side);
    return { disc: cutDisc(planes, side, fill), fill };
  }

  // The first layer, by itself ------------------------------------------------------------------------------------

  /** The copies L_g k of the kernel of one field: one list of planes for each element. */
  function kernelCopies(network, field) {
    const layer = network.encoder[0][0];
    const stack = rotateKernels(network, layer, NO_BREAKS);
    const length = layer.inputs * network.kernelSize ** 2;
    const start = (g) => (g * layer.outputs + field) * length;
    return network.elements.map((_, g) => stack.slice(start(g), start(g) + length));
  }

  /** Cross-correlation k * f, summed over the channels. */
  function correlate(kernel, image, side, size) {
    const out = new Float64Array(side * side);
    const padded = pad(image, side, (size - 1) / 2);
    for (let c = 0; c * side * side < image.length; c++) {
      addOne(padded, c * (side + size - 1) ** 2, side, kernel, c * size * size, size, out, 0);
    }
    return Float32Array.from(out);
  }

  /** The lifted maps [k * f](g) = (L_g k) * f of one field. */
  function lift(network, field, image, side) {
    return kernelCopies(network, field).map((kernel) => correlate(kernel, image, side, network.kernelSize));
  }

  /** The group average 1/|G| sum_g L_g (k * (L_g^-1 f)); without the inverse, L_g f in place of L_g^-1 f. */
  function groupAverage(network, field, image, side, breaks = NO_BREAKS) {
    const [kernel] = kernelCopies(network, field);
    return mean(
      network.elements.map((element) => {
        const moved = (breaks.inverse ? act : actInverse)(element, image, side);
        return act(element, correlate(kernel, moved, side, network.kernelSize), side);
      }),
    );
  }

  function mean(maps) {
    return maps[0].map((_, at) => maps.reduce((sum, map) => sum + map[at], 0) / maps.length);
  }

  /** The largest difference of two images, where `counts` says that a pixel counts. */
  function largestDifference(first, second, counts = () => true) {
    let largest = 0;
    for (let at = 0; at < first.length; at++) {
      if (counts(at)) largest = Math.max(largest, Math.abs(first[at] - second[at]));
    }
    return largest;
  }

  return {
    NO_BREAKS, act, actInverse, argmax, cutDisc, decodeBytes, forward, groupAverage, isCompared, kernelCopies, largestDifference,
    lift, mean, medians, multiplyAdds, normalize, predict, prepare, readNetwork, rotate,
  };
})();
