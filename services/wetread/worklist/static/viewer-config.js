"use strict";
/* How OHIF finds us: same origin, our DICOMweb root, nothing from elsewhere. Options: docs.ohif.org/configuration. */

const root = `${window.location.origin}/dicom-web`;

window.config = {
  routerBasename: "/viewer",
  extensions: [],
  modes: [],
  customizationService: {
    // No tour over the images of an urgent study.
    "ohif.tours": { $set: [] },
    // OHIF 3.13 gives up on a whole report when one of its groups has no coordinates (an outcome, a volume): give those
    // an empty place, which it passes over.
    onBeforeSRAddMeasurement: {
      $set: ({ measurement }) => (measurement.coords?.length ? measurement : { ...measurement, coords: [{}] }),
    },
  },
  // A segmentation or report that was opened is shown, without asking again.
  disableConfirmationPrompts: true,
  showStudyList: true,
  investigationalUseDialog: { option: "always" },
  maxNumberOfWebWorkers: 2,
  showLoadingIndicator: true,
  showErrorDetails: "always",
  // A missing slice is shown as such, never bridged by interpolation.
  strictZSpacingForVolumeViewport: true,
  maxNumRequests: { interaction: 100, thumbnail: 5, prefetch: 25 },
  defaultDataSourceName: "wetread",
  dataSources: [
    {
      namespace: "@ohif/extension-default.dataSourcesModule.dicomweb",
      sourceName: "wetread",
      configuration: {
        friendlyName: "wetread",
        name: "wetread",
        qidoRoot: root,
        wadoRoot: root,
        wadoUriRoot: root,
        qidoSupportsIncludeField: true,
        supportsFuzzyMatching: true,
        supportsWildcard: true,
        imageRendering: "wadors",
        thumbnailRendering: "wadors",
        enableStudyLazyLoad: true,
        dicomUploadEnabled: false,
        singlepart: "bulkdata,video,pdf",
        bulkDataURI: { enabled: true },
        omitQuotationForMultipartRequest: true,
      },
    },
  ],
};
