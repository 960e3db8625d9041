<?php

declare(strict_types=1);

namespace PMP\Analytics\Capture;

/**
 * Whether the visitor of this request lets the shop count what they do. Nobody said yes means no.
 *
 * Sales, accounts and forms are told all the same, for they are the shop's business with somebody, but without the marks
 * of the visit.
 */
final class Consent
{
    public static function is_given(Visit $visit): bool
    {
        // The tracker keeps the cookie of the session with a consent only, and deletes it with the consent.
        $given = function_exists('wp_has_consent') ? wp_has_consent('statistics') : $visit->session_id() !== '';
        /**
         * The visitor consents to statistics.
         *
         * @param bool $given What the WP Consent API says, or where it is missing the tracker.
         */
        return (bool) apply_filters('pmp_analytics_has_consent', $given);
    }
}
